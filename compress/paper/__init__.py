"""The paper's experiments: what to run (experiments, cells), and what the paper prints (printed).

reproducing runs and collects, findings and hypothesis judge, figures and document present the results.
"""
