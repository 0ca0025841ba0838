"""A server that answers as llama.cpp's and Ollama's do, with profiles as models.

It runs in two processes. This one speaks HTTP and never calls llama.cpp (`app`, `guard`, `openai`,
`ollama`); the other one holds the model (`worker`) and is replaced if llama.cpp ends it
(`dispatcher`), as it does for some grammars.

The application of `llama_cpp.server` is not used, only its request models: it cannot end an answer
whose client has gone, drops the connection where a stream fails, prints the text of requests that
fail, and lets any web page that is open in a browser read the answers.
"""
