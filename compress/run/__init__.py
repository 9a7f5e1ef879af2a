"""A recipe applied to a network: plan, rehearse, run the stages, write the results."""
