"""The running program: watches fill the store and the queue, workers take keys and reconcile them."""
