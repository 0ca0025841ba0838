"""A desktop assistant that answers mail in one's own voice: PySide6 and steerx-edge.

`python -m examples.assistant --profiles DIR`; see docs/assistant.md.
"""
