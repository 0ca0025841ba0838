"""The programs that are made of the library."""
