"""`python -m steerx_edge`."""

from steerx_edge.apps.cli import main

main(prog_name="steerx-edge")
