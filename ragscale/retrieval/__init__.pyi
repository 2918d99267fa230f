from ._base import Retriever as Retriever
from ._base import passages_digest as passages_digest
from ._bm25 import BM25Retriever as BM25Retriever
from ._hits import Hits as Hits
from ._hits import top_k as top_k
