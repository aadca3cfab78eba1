"""What access control costs: a cached manifest with a token, and while somebody guesses passwords."""

import base64
import contextlib
import json
import subprocess
import time

from contests import ACCEPT, MOORAGE, OPEN, UNTROUBLED, Cell, Contest
from load import Target, ask, requests_per_second

USER, PASSWORD = "bench", "wonderland"

# bcrypt, at the cost that `htpasswd` and `moorage user add` have unless told otherwise; made by libxcrypt.
HASH = "$2y$10$NHFVFxLN6UTwJghZxZIXVuHtzb/Li6ScCTAyUnigTvlkmQzsezpOy"

# RFC 7515, appendix A.3.
KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}

GUESSES = 64
"""How many connections guess passwords."""

# Another password with every request, as fast as they are answered.
GUESS = """
local number = 0
function request()
  number = number + 1
  local form = "grant_type=password&username=%s&password=" .. number
  return wrk.format("POST", "/auth/token", nil, form)
end
"""


def configuration():
    """The plugin's field `access`: one user who may do everything, and rules for others before."""
    others = [
        {"who": ["anonymous", "authenticated"], "repositories": ["public/**"], "actions": ["pull"]},
        {"who": ["group:dev"], "repositories": ["apps/*"], "actions": ["pull", "push"], "tags": ["v*"]},
    ]
    own = {"who": [f"user:{USER}"], "repositories": ["**"], "actions": ["*"]}
    return json.dumps({"key": KEY, "users": [f"{USER}:{HASH}"], "rules": [*others, own]})


def contests(guarded, unguarded, name, digest, folder, seconds):
    """The contests between an Envoy with access control and one without, on these ports."""
    script = folder / "guess.lua"
    script.write_text(GUESS % USER)
    path = f"/v2/{name}/manifests/{digest}"
    tokens = Tokens(guarded, name)

    def pulls():
        target = Target(guarded, path, headers=(ACCEPT, tokens.header()))
        return requests_per_second(target, 16, seconds)

    def pulls_beside_guesses():
        with guesses(guarded, script, seconds):
            return pulls()

    undisturbed = Cell(pulls)
    without = Cell(lambda: requests_per_second(Target(unguarded, path, headers=(ACCEPT,)), 16, seconds))
    return [
        Contest("manifest by digest with a token", 16, "requests/s", {MOORAGE: undisturbed, OPEN: without}),
        Contest(
            f"the same while {GUESSES} connections guess passwords",
            16,
            "requests/s",
            {MOORAGE: Cell(pulls_beside_guesses), UNTROUBLED: undisturbed},
        ),
    ]


class Tokens:
    """A token to pull with, fetched anew before it ends."""

    LIFETIME = 240

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.token, self.fetched = None, 0.0

    def header(self):
        if self.token is None or time.monotonic() > self.fetched + self.LIFETIME:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            path = f"/auth/token?scope=repository:{self.name}:pull"
            _, answer = ask(self.port, "GET", path, (f"Authorization: Basic {pair}",))
            self.token, self.fetched = json.loads(answer)["token"], time.monotonic()
        return f"Authorization: Bearer {self.token}"


@contextlib.contextmanager
def guesses(port, script, seconds):
    """Has passwords guessed at full speed for as long as the `with` lasts."""
    command = ["wrk", "-t1", f"-c{GUESSES}", f"-d{seconds + 60}", "-s", script, f"http://127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
