"""Placement of programs on cores; torch-neuron has it here alone."""

from neuron_placement import multicore_context as multicore_context
from neuron_placement import neuron_cores_context as neuron_cores_context
from neuron_placement import set_multicore as set_multicore
from neuron_placement import set_neuron_cores as set_neuron_cores
