"""`tessera mcp` as the package's own client meets it: over stdio, against a real server."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import ClientSession, StdioServerParameters, stdio_client

from models.io.decode import decode
from tests.service.answers import JPEG, PNG

ROOT = Path(__file__).parents[3]
MAIN = "from tessera.cli import main; main()"


@pytest.mark.slow
def test_three_tools(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.txt").write_text("no image at all, but some text")
    (tmp_path.parent / "outside.png").write_bytes(PNG)
    command = StdioServerParameters(
        command=sys.executable,
        args=["-c", MAIN, "mcp", "--url", url, "--key", "secret"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    async def ask() -> None:
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert set(tools) == {"segment", "clusters", "similar"}
            assert all(tool.description for tool in tools.values())

            async def call(name: str, **arguments: Any) -> Any:
                return await session.call_tool(name, arguments)

            found = await call("segment", image="a.jpg", k=4)
            told = json.loads(found.content[0].text)
            assert [len(told["clusters"]), told["width"], told["height"]] == [4, 100, 60]
            assert decode(base64.b64decode(found.content[1].data)).image.shape == (60, 100, 3)
            named = json.loads((await call("clusters")).content[0].text)
            assert [one["name"] for one in named["clusters"]] == ["red", "green", "blue", "white", "black"]
            like = await call("similar", image=str(tmp_path / "a.jpg"), x=5, y=5)
            assert 0.1 < json.loads(like.content[0].text)["share_above_0.5"] < 0.5
            for arguments, words in [
                ({"image": "../outside.png"}, "lies outside of"),
                ({"image": "nowhere.png"}, "cannot be read"),
                ({"image": "b.txt"}, "not an image"),
                ({"image": "a.jpg", "k": 99}, "choose 2 to 5"),
            ]:
                refused = await call("segment", **arguments)
                assert words in refused.content[0].text

    asyncio.run(asyncio.wait_for(ask(), 60))
