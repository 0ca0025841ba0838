"""Everything that touches llama.cpp: no other package imports llama_cpp or the native module."""
