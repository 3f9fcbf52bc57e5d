"""What is counted of an answer besides the answer."""

from typing import Any

from tests.service.answers import PNG


def counted(client: Any) -> int:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith("tessera_margin_count")]
    return int(float(line.split()[1]))


def test_the_margin_of_every_16th_image_is_counted_where_nobody_asks_for_it(serve: Any) -> None:
    with serve() as client:
        for images in range(1, 34):
            assert client.post("/segment?format=png", content=PNG).status_code == 200
            assert counted(client) == (images + 15) // 16
        assert client.post("/segment", content=PNG).json()["clusters"][0]["confidence"] > 0
        assert counted(client) == 4  # as JSON has it, every one
