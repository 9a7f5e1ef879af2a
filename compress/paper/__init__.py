"""The paper's experiments: what to run (experiments, cells), what it printed (printed), what came out.

reproducing runs and collects, findings judges, figures and document show.
"""
