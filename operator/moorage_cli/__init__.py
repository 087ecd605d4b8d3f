"""`moor`, also `kubectl moor`: what a person does with Moorage from a terminal. One module per verb."""
