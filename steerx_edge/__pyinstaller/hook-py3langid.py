"""The model by which the language of a text is told."""

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("py3langid")
