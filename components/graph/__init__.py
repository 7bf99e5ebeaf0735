"""Component graph."""

from components.graph.component import graph as graph
