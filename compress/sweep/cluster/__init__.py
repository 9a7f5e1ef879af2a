"""Cells on a Ray cluster, whose nodes need not see the files of the machine that runs the sweep."""
