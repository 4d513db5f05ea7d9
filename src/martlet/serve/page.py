"""The page at ``/``: what there is to ask."""

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Martlet</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
dt { font-family: ui-monospace, monospace; margin-top: 1rem }
</style>
<h1>Martlet</h1>
<p>This server recommends. It speaks JSON; an id in a path is percent-encoded.</p>
<dl>
<dt>GET /api/recommend/{user_id}?n=10</dt>
<dd>The best items for a user; popular ones, marked <code>"fallback": true</code>, for a user
without a history.</dd>
<dt>POST /api/recommend</dt>
<dd>The same for <code>{"user_id": ...}</code> or <code>{"history": [item ids]}</code>, with
<code>n</code>, <code>exclude</code>, <code>candidates</code>, <code>seen</code> and
<code>context</code>.</dd>
<dt>GET /api/similar/{item_id}?n=10</dt>
<dd>The items nearest to an item.</dd>
<dt>POST /api/predict</dt>
<dd>Of a model of labelled rows: the probability of label 1 for each of
<code>{"rows": [{column: value}]}</code>.</dd>
<dt>GET <a href="/api/health/live">/api/health/live</a>,
<a href="/api/health/ready">/api/health/ready</a></dt>
<dd>Whether the process runs; whether it answers, and with which bundle.</dd>
<dt>GET <a href="/metrics">/metrics</a></dt>
<dd>Counts and latencies for Prometheus.</dd>
</dl>
</html>
"""
