"""The tutorial of many: Flask's own server, a Keras model as a global, ``model.predict`` for each request."""

from __future__ import annotations

import io
import os

import keras
import numpy as np
from flask import Flask, jsonify, request
from PIL import Image

app = Flask(__name__)
model = keras.models.load_model(os.environ["BENCH_KERAS"])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@app.post("/predict")
def predict():
    picture = Image.open(io.BytesIO(request.files["file"].read())).convert("RGB")
    pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR), np.float32) / 255
    scores = model.predict(((pixels - np.float32(MEAN)) / np.float32(STD))[np.newaxis], verbose=0)
    return jsonify({"scores": scores[0].tolist()})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]))
