"""A labeling configuration is read as Label Studio means it, and no XML does harm."""

import pytest

from service.api.protocols.label_studio.label_matching import matched, unmatched
from service.api.protocols.label_studio.labeling_config import Label, parse
from service.errors import BadOption

CONFIG = """
<View>
  <Header value="Draw"/>
  <View><Image name="left" value="$one" zoom="true"/><Image name="right" value="$two"/></View>
  <BrushLabels name="brush" toName="left, right" tessera_k="3" tessera_min_area="20">
    <View><Label value="Road &amp; path" background="#fff"/></View>
    <Label value="Sky" alias="cluster_02"/>
    <Label/>
  </BrushLabels>
  <PolygonLabels name="polygon" toName="right"><Label value="green"/></PolygonLabels>
  <RectangleLabels name="box" toName="left"><Label value="Car"/></RectangleLabels>
  <Text name="text" value="$three"/><Labels name="words" toName="text"><Label value="Word"/></Labels>
</View>
"""


def test_images_controls_and_labels() -> None:
    config = parse(CONFIG)
    assert config.images == {"left": "one", "right": "two"}
    assert [control.name for control in config.of("left")] == ["brush"]
    brush, polygon = config.of("right")
    assert (brush.kind, polygon.kind) == ("brushlabels", "polygonlabels")
    assert [(label.value, label.name) for label in brush.labels] == [
        ("Road & path", "Road & path"),
        ("Sky", "cluster_02"),
    ]
    assert [label.value for label in polygon.labels] == ["green"]
    assert (brush.options, brush.min_area, polygon.min_area) == ({"k": "3"}, 20, None)


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("", "no XML"),
        ("<View>", "no XML"),
        ("<View/>", "no image is labeled with BrushLabels or PolygonLabels"),
        ('<View><Image name="i" value="$i"/></View>', "no image is labeled"),
        (CONFIG.replace("one", "two").replace("$", ""), "no image is labeled"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "leave <!DOCTYPE …> out"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>', "leave <!DOCTYPE …> out"),
        ("<a>" * 65 + "</a>" * 65, "more than 64 in each other"),
        (f"<a>{'<b/>' * 10_000}</a>", "more than 10000 tags"),
        (f"<a>{' ' * 2**20}</a>", "1048576 are the most"),
        ("<View>\x00</View>", "no XML"),
        ("<View>\udc80</View>", "no XML"),
        (CONFIG.replace('"20"', '"-1"'), "tessera_min_area is '-1'"),
    ],
    ids=range(13),
)
def test_what_is_of_no_use_is_said(xml: str, said: str) -> None:
    with pytest.raises(BadOption) as refused:
        parse(xml)
    assert said in str(refused.value)


def test_a_label_is_found_by_alias_then_name_then_number() -> None:
    names = ["cluster 0", "road", "sky", "tree"]
    labels = [Label("Himmel", "Sky"), Label("sky", ""), Label("cluster_03", ""), Label("Straße", "cluster_01")]
    assert matched(labels, names) == {1: "cluster_01", 2: "Sky", 3: "cluster_03"}
    assert matched([Label("Cluster 0", "")], names) == {0: "Cluster 0"}
    assert matched([Label("cluster_1", ""), Label("road", "")], names) == {1: "road"}
    assert matched([Label("cluster_99", ""), Label("car", "")], names) == {}


def test_clusters_without_a_label_are_told() -> None:
    names = ["road", "sky", "tree"]
    assert unmatched(names, [2, 0], {0: "road"}) == (
        "no label for 'tree' (or cluster_02): give a <Label> that value, or that alias"
    )
    assert unmatched(names, [0], {0: "road"}) == ""
    assert unmatched([f"n{i}" for i in range(20)], range(20), {}).count("cluster_") == 8
