"""Talking to a model, over real HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from moorage_cli.main import main


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, body = self.server.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def event(piece):
    return f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n"


@pytest.fixture
def gateway():
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        server.asked, server.answers = [], []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


def test_one_question(gateway, capsys):
    gateway.answers.append((200, event("A har") + event("bour.") + "data: [DONE]\n\n"))
    assert main(["chat", "team-a/chat", "--url", gateway.url, "-m", "What?", "--system", "Be short"]) == 0
    assert capsys.readouterr().out == "A harbour.\n"
    said = [{"role": "system", "content": "Be short"}, {"role": "user", "content": "What?"}]
    assert gateway.asked == [{"model": "team-a/chat", "messages": said, "stream": True}]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, '{"error": {"message": "FetchingModel: wait"}}', "moor: 503: FetchingModel: wait\n"),
        (502, "<html>", "moor: 502: Bad Gateway\n"),
        (200, event("A"), "moor: the answer broke off: the connection ended before it\n"),
        (200, 'data: {"error": {"message": "gone"}}\n\n', "moor: the answer broke off: gone\n"),
    ],
)
def test_what_goes_wrong_is_one_line_and_1(gateway, capsys, status, body, said):
    gateway.answers.append((status, body))
    assert main(["chat", "chat", "--url", gateway.url, "-m", "What?"]) == 1
    assert capsys.readouterr().err == said


FAKE_KUBECTL = """\
#!/bin/sh
echo "$@" >>"$(dirname "$0")/asked"
case "$1 $2" in
"get service/"*) test -n "$GATEWAY" || { echo 'Error from server (NotFound): services not found' >&2; exit 1; } ;;
"get "*) echo '{"metadata": {"name": "chat", "namespace": "team-a"}}' ;;
port-forward*) echo "Forwarding from 127.0.0.1:$GATEWAY -> 8080"; exec sleep 600 ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that forwards to what runs here: there is no kubelet behind which a pod could be."""
    program = tmp_path / "kubectl"
    program.write_text(FAKE_KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "asked"


def test_without_an_address_kubectl_forwards_to_the_gateway(gateway, kubectl, monkeypatch, capsys):
    monkeypatch.setenv("GATEWAY", str(gateway.server_port))
    gateway.answers.append((200, event("Yes.") + "data: [DONE]\n\n"))
    assert main(["chat", "chat", "-m", "There?", "--context", "c", "-n", "team-a"]) == 0
    assert capsys.readouterr().out == "Yes.\n"
    assert gateway.asked[0]["model"] == "team-a/chat"
    assert kubectl.read_text().splitlines() == [
        "get llmdeployments.moorage.dev chat --output=json --context=c --namespace=team-a",
        "get service/moorage-gateway --context=c --namespace=moorage-system",
        "port-forward service/moorage-gateway :80 --context=c --namespace=moorage-system",
    ]


@pytest.mark.usefixtures("kubectl")
def test_no_gateway_is_told_with_the_next_step(capsys):
    assert main(["chat", "chat", "-m", "There?"]) == 1
    assert capsys.readouterr().err.startswith("moor: Error from server (NotFound): services not found; ")


def test_an_address_without_a_scheme(capsys):
    assert main(["chat", "chat", "--url", "gateway.example", "-m", "What?"]) == 1
    assert "write http:// or https:// before it" in capsys.readouterr().err
