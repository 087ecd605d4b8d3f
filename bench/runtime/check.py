"""Before anything is measured: does a server say what our counting rests on?"""

from bench.runtime.answers import ServerError
from bench.runtime.cells import LONG, OUT, SHORT, Cell
from bench.runtime.load import ask
from bench.runtime.say import say
from bench.runtime.servers import Server

_NEAR = 0.3
_CELLS = (Cell("check", 1, SHORT), Cell("check-long", 1, LONG))


def check(server: Server) -> None:
    """Ask for one answer to each kind of prompt; the first one also builds what a server builds at its first request.

    Raises:
        ServerError: an answer has another number of tokens than was asked for, or a prompt is not as long as it says.
    """
    with server.awake():
        for cell in _CELLS:
            try:
                answer = ask(server.target, cell)
            except ServerError as error:
                raise server.explain(error) from error
            if answer.tokens != OUT:
                raise ServerError(
                    f"an answer of {OUT} tokens was counted as {answer.tokens} (it ended by {answer.finish})"
                )
            if answer.prompt_tokens is not None and abs(answer.prompt_tokens / cell.prompt - 1) > _NEAR:
                raise ServerError(f"a prompt of about {cell.prompt} tokens had {answer.prompt_tokens}")
            counted = "server's usage" if answer.completion_tokens is not None else "finish reason `length`"
            say(
                f"{server.name}: {answer.prompt_tokens or 'about ' + str(cell.prompt)} tokens in, {answer.tokens:.0f}"
                f" out by the {counted}, {len(answer.events)} events"
            )
