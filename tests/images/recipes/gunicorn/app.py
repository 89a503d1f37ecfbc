"""A Flask application with an answer that takes its time."""

import time

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "hello\n"


@app.get("/slow")
def slow():
    def parts():
        for number in range(4):
            yield f"part {number}\n"
            time.sleep(1)

    return parts(), {"Content-Type": "text/plain"}
