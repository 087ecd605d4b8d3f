"""The engine: scheduler, block manager, sequences. No torch, no I/O, no clock: all of it runs in a test."""
