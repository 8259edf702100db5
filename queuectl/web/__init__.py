"""The queue over HTTP: who may do what, the REST API, what Prometheus reads.

No rule about jobs is here: each route reads what was asked for, asks the `QueueManager`, and writes
what it answers. Nobody is let in who does not show a token, whatever the route: `access` decides
that before any of them is looked for. All but `exposition` is loaded by `queuectl serve` alone.
"""
