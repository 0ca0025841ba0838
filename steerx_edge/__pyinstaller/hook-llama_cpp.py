"""llama.cpp itself, which llama-cpp-python looks for in its own folder."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("llama_cpp")
