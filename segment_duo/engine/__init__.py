"""The engine: a daemon that holds the model and the embeddings, its protocol and its client.

    client, lifecycle  ->  protocol  <-  server  ->  worker  ->  compute  ->  predictor, automatic, cache

``protocol``, ``settings``, ``client`` and ``lifecycle`` run in every command and stay light; ``server`` and what lies behind it run in the engine's
process only. The engine knows pixels and prompts, never image files or servers.
"""
