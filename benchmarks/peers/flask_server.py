"""The tutorial: Flask, the model as a global, waitress with its threads."""

from __future__ import annotations

from flask import Flask, jsonify, request
from waitress import serve

from benchmarks.peers.answering import PORT, THREADS, Model

app = Flask(__name__)
model = Model()


@app.post("/json")
def rows():
    return jsonify({"scores": model.rows(request.get_json()["inputs"]["x"])})


@app.post("/raw")
def raw():
    return jsonify({"scores": model.raw(request.get_data())})


@app.post("/jpeg")
def jpeg():
    return jsonify({"scores": model.jpeg(request.get_data())})


if __name__ == "__main__":
    # A queue longer than the threads is what 32 connections are for; without this waitress warns of each.
    serve(app, host="127.0.0.1", port=PORT, threads=THREADS, _quiet=True)
