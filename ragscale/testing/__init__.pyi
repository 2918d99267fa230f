from ._encoder import check_encoder as check_encoder
from ._language_model import check_language_model as check_language_model
from ._retriever import check_retriever as check_retriever
from ._scaling_law import check_scaling_law as check_scaling_law
