"""The C++ library that computes on CPUs: its sources, how they are built, and how Python calls it."""
