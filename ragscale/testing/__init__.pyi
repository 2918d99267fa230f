from ._retriever import check_retriever as check_retriever
