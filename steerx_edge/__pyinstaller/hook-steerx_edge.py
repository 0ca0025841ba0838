"""The neutral texts, the style sheets of the pages, and the version."""

from PyInstaller.utils.hooks import collect_data_files, copy_metadata

datas = [*collect_data_files("steerx_edge"), *copy_metadata("steerx-edge")]
