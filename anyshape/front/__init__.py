"""The proxy that stands before TorchServe: it lets whole, plain requests of known clients through, and
answers everything else itself.

    connection.py  one client's connection: strict parsing, bounds, deadlines, answers in order
    routes.py      a path into what is asked of which model, and in whose words errors are told
    proxy.py       a request into an answer: tokens, TorchServe, its errors, one more try
    upstream.py    connections to TorchServe        watch.py   which models are READY, keys that stay valid
    tokens.py      who may ask                      errors.py  one class per status and type
    access.py      the log: one line of JSON per answer       replies.py  answers as bytes
    metrics.py     what is counted, for Prometheus             turns.py  how much of TorchServe one client has
    process.py     listening, TLS, draining         settings.py  all limits, with their defaults
"""
