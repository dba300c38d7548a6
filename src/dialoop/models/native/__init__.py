"""Kernels in C++, compiled for the processor at hand when they are first wanted."""
