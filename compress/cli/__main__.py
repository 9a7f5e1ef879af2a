"""`python -m compress.cli`, where the command is not on the path."""

from compress.cli import main

main()
