import functools
import json
import socket


def retried(function):
    @functools.wraps(function)
    def wrapper(*args):
        for _ in range(2):
            try:
                return function(*args)
            except OSError:
                pass
        return function(*args)

    return wrapper


def lookup(prices, name):
    return prices[name]


def parse(text):
    return json.loads(text)


def read(path):
    with open(path) as file:
        return file.read()


@retried
def fetch(path):
    return read(path)


def ping(n):
    return pong(n + 1)


def pong(n):
    return ping(n + 1)


def listen():
    left, right = socket.socketpair()
    left.settimeout(0.01)
    return left.recv(1)


def render(template):
    scope = {}
    exec("def generated():\n    return 1 / 0\n", scope)
    return scope["generated"]()
