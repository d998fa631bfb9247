# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the server answers beside the page: scores for programs, and who may ask."""

from base64 import b64encode
from http.cookies import SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from secrets import compare_digest
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import FastAPI, File, HTTPException, Query, UploadFile
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from anomalib_htdgm import __version__
from anomalib_htdgm.inspection.facts import NOT_READ
from anomalib_htdgm.inspection.pictures import encode
from anomalib_htdgm.inspection.project import Project, list_projects

from .inspectors import Inspectors
from .views import draw

MOST_BYTES = 100 * 2**20
"""Bytes of a request to score a photograph."""
COOKIE = "htdgm_token"


class Score(BaseModel):
    """What a model says of a photograph."""

    project: str
    score: float = Field(description="Anomaly score in [0, 1].")
    threshold: float = Field(description="The project's threshold.")
    anomalous: bool = Field(description="Whether the score is above the threshold, as anomalib's label.")
    verdict: str = Field(description="'good', 'look at it' or 'anomalous', as on the page.")
    reason: str = Field(description="Sentences for people; empty if there is nothing to say.")
    map: str | None = Field(None, description="The map, if asked for: a grey PNG in base64; above 127 is anomalous.")


def build_app(inspectors: Inspectors, token: str | None = None) -> FastAPI:
    """Build the server, without the page; with a token everyone has to know it."""
    app = FastAPI(title="Htdgm", version=__version__, description="Scores photographs by the models of projects.")
    app.add_middleware(Gate, token=token)

    # Not a coroutine, so that it runs in a thread, and the page goes on meanwhile.
    @app.post("/score", summary="Score a photograph")
    def score(
        file: Annotated[UploadFile, File(description="The photograph: any format that Pillow reads, or HEIC.")],
        project: Annotated[str | None, Query(description="Name of the project; not needed if there is one.")] = None,
        map: Annotated[bool, Query(description="Whether to send the anomaly map.")] = False,  # noqa: A002
    ) -> Score:
        return _score(inspectors, _choose(inspectors, project), file, with_map=map)

    @app.get("/picture", include_in_schema=False)
    def picture(project: str, key: str, kind: str, large: bool = False) -> Response:
        try:
            content = draw(inspectors, inspectors.find(project), key, kind, large=large)
        except (KeyError, ValueError, OSError) as error:
            raise HTTPException(404, "There is no such picture.") from error
        # Addresses tell of threshold and model, so a picture at one address stays as it is.
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return app


def _choose(inspectors: Inspectors, name: str | None) -> Project:
    if name is None:
        having = [project for project in list_projects(inspectors.root) if _has_learnt(project)]
        if len(having) == 1:
            return having[0]
        names = ", ".join(sorted(project.folder.name for project in having)) or "none that has learnt anything"
        raise HTTPException(400, f"project: got none; allowed is the name of one of these: {names}")
    try:
        return inspectors.find(name)
    except KeyError as error:
        raise HTTPException(404, f"project: there is none of the name {name}") from error


def _has_learnt(project: Project) -> bool:
    try:
        return project.read().model is not None
    except ValueError:  # it is damaged
        return False


def _score(inspectors: Inspectors, project: Project, file: UploadFile, *, with_map: bool) -> Score:
    # The client's name of the file is not used: what is in it decides what it is.
    with TemporaryDirectory(prefix="htdgm_") as folder:
        path = Path(folder) / "photograph"
        path.write_bytes(file.file.read())
        try:
            with inspectors.of(project) as inspector:
                finding, heat, _ = inspector.inspect(path, remembers=False)
                facts = inspector.facts
        except ValueError as error:
            raise HTTPException(409, str(error)) from error
    if finding.score is None or heat is None:
        raise HTTPException(422, finding.problem or NOT_READ)
    threshold, picture = project.read().threshold, None
    if with_map:
        grey = (heat / facts.pixel_threshold * 127.5).clip(0, 255).round().astype("uint8")
        picture = b64encode(encode(grey, "PNG")).decode()
    verdict = finding.verdict_at(facts.band_at(threshold))
    return Score(
        project=project.folder.name,
        score=finding.score,
        threshold=threshold,
        anomalous=finding.score > threshold,
        verdict=verdict,
        reason=finding.reason_of(verdict),
        map=picture,
    )


def is_local(host: str) -> bool:
    """Tell whether an address is heard by its own machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """Lets requests in that know the token, if there is one, and are not too large.

    A program sends the token as ``Authorization: Bearer``. A browser opens the address with it once, and gets a cookie.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it in."""
        answer = self._refuse(scope) if scope["type"] in {"http", "websocket"} else None
        await (answer or self.app)(scope, receive, send)

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self.token is not None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if self._is_token(given) and scope.get("method") == "GET":
                answer = RedirectResponse(scope["path"], 303)  # so that the token is not in the browser's history
                answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
                return answer
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            if not self._is_token(bearer) and not (cookie and self._is_token(cookie.value)):
                say = {"detail": "The token that was printed when the server was started is needed."}
                return JSONResponse(say, 401, {"WWW-Authenticate": "Bearer"})
        if scope["path"] == "/score" and scope.get("method") == "POST":
            length = headers.get("content-length", "")  # beyond which servers do not read
            if not length.isdigit():
                return JSONResponse({"detail": "Content-Length is needed."}, 411)
            if int(length) > MOST_BYTES:
                return JSONResponse({"detail": f"got {length} bytes; allowed are at most {MOST_BYTES}"}, 413)
        return None

    def _is_token(self, given: str) -> bool:
        return compare_digest(given.encode(), (self.token or "").encode())
