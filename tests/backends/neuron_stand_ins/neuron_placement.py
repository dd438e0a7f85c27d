"""Placement of programs on cores, by the names that both SDKs give it."""

from neuron_runtime import all_cores, cores_context, set_cores


def set_neuron_cores(trace, start_nc=-1, nc_count=-1):
    set_cores(trace, start_nc, nc_count)


def set_multicore(trace):
    set_cores(trace, 0, all_cores())


def neuron_cores_context(start_nc=-1, nc_count=-1):
    return cores_context(start_nc, nc_count)


def multicore_context():
    return cores_context(0, all_cores())
