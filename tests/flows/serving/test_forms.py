"""The forms hold every field of the specs with its bounds, and what is filled in means what it means on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import is_valid, validate

from featcx_core.errors import InputError
from featcx_core.specs import RunSpec, SweepSpec
from flows.asked import Asked
from flows.grid import points
from flows.serving.deployments import FLOWS
from flows.serving.filled import filled_spec, filled_sweep
from flows.serving.forms import filled_in, worded
from flows.settings import load_spec, nest, preset_names, preset_values

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems")
FLOW = {name: flow.parameters.model_dump(exclude_unset=True) for name, flow in FLOWS.items()}
LEFT_OUT = {"analyze": {"runtime", "complexity"}, "sweep": {"runtime", "complexity", "seed"}}


def refusals(flow: str, parameters: dict[str, Any]) -> list[str]:
    """What the server says of them."""
    return [str(error) for error in validate(parameters, FLOW[flow], raise_on_error=False)]


def alternatives(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """A field's types, references followed, null left out."""
    parts = schema.get("anyOf", [schema])
    found = [definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part for part in parts]
    return [part for part in found if part.get("type") != "null"]


def leaves(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field by its dotted path: description, and bounds and choices of its types."""
    for name, field in schema["properties"].items():
        types = alternatives(field, definitions)
        nested = next((part for part in types if "properties" in part), None)
        if nested is not None:
            yield from leaves(nested, definitions, f"{path}{name}.")
            continue
        bounds = {key: part[key] for part in (*types, field) for key in BOUNDS if key in part}
        choices = {value for part in types for value in part.get("enum", [])}
        kinds = {part.get("type") or type(part.get("const")).__name__ for part in types}
        yield (
            path + name,
            {"description": field.get("description"), "bounds": bounds, "choices": choices, "kinds": kinds},
        )


@pytest.mark.parametrize("flow", ["analyze", "sweep"])
def test_every_field_of_the_spec_is_in_the_form(flow: str) -> None:
    spec = RunSpec.model_json_schema()
    wanted = {path: leaf for path, leaf in leaves(spec, spec["$defs"]) if path.partition(".")[0] not in LEFT_OUT[flow]}
    definitions = FLOW[flow]["definitions"]
    form = definitions[FLOW[flow]["properties"]["settings"]["$ref"].rpartition("/")[2]]
    found = dict(leaves(form, definitions))
    assert set(found) == set(wanted)
    for path, leaf in found.items():
        assert leaf["description"], path
        assert leaf["description"] == wanted[path]["description"], path
        assert leaf["bounds"] == wanted[path]["bounds"], path
        switch = wanted[path]["kinds"] == {"boolean"}
        assert leaf["choices"] == ({"on", "off"} if switch else wanted[path]["choices"]), path
    assert len(found) > 60


def test_the_form_of_task_complexity_has_only_what_it_uses() -> None:
    from flows.complexity import UNUSED

    sections = set(FLOW["task-complexity"]["definitions"]["RunSpecForm0"]["properties"])
    assert sections == set(RunSpec.model_fields) - UNUSED - {"runtime"}


def test_the_axes_of_a_sweep_are_fields_of_its_form() -> None:
    assert set(FLOW["sweep"]["properties"]) == {"preset", "settings", *SweepSpec.model_fields} - {"base"}
    assert all(
        field["description"] and "default" in field for field in FLOW["sweep"]["properties"].values() if "type" in field
    )


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_fits_into_the_form_and_means_itself(preset: str) -> None:
    parameters = worded({"preset": preset, "settings": preset_values(preset)})
    parameters["settings"].pop("complexity", None)
    assert refusals("analyze", parameters) == []
    assert filled_spec(**parameters) == load_spec(preset) == filled_spec(preset, {})


def test_an_untouched_form_changes_nothing() -> None:
    sent = {  # as the browser sends it
        "target": {"schedule": None},
        "disentangler": {"schedule": None},
        "variants": {"distilled": None, "pruned": None, "quantised": None},
    }
    assert refusals("analyze", {"preset": "digits", "settings": sent}) == []
    assert filled_in(sent) == {}
    assert filled_spec("digits", sent) == load_spec("digits")


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("target.samples", 300, "300"),
        ("target.schedule.lr", 0.002, "2e-3"),
        ("disentangler.blocks", [1, 3], "1,3"),
        ("exemplary.seeds", [5, 6], "5,6"),
        ("components.rows", "all", "all"),
        ("reliability.enabled", "off", "false"),
        ("dataset.flip", "on", "true"),
        ("variants.pruned", False, "false"),
        ("variants.pruned.sparsity", 0.9, "0.9"),
        ("seed", 3, "3"),
    ],
)
def test_a_field_means_what_it_means_on_the_command_line(path: str, value: Any, text: str) -> None:
    settings = nest(path, value)
    assert refusals("analyze", {"settings": settings}) == []
    assert filled_spec("mnist", settings) == load_spec("mnist", overrides=[f"{path}={text}"])


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"target": {"samples": 0}}, "samples"),
        ({"target": {"sample": 10}}, "sample"),
        ({"precision": "fp64"}, "precision"),
        ({"exemplary": {"seeds": [1]}}, "seeds"),
        ({"variants": {"pruned": {"sparsity": 1}}}, "pruned"),
        ({"variants": {"pruned": True}}, "pruned"),
        ({"runtime": {"device": "cpu"}}, "runtime"),
    ],
)
def test_the_server_refuses_what_the_form_does(settings: dict[str, Any], field: str) -> None:
    assert not is_valid({"settings": settings}, FLOW["analyze"])
    assert any(field in said for said in refusals("analyze", {"settings": settings}))


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [("disentangler.blocks", [2, 1], "2,1"), ("target.schedule.optimiser", "sgd", "sgd"), ("target.samples", 0, "0")],
)
def test_wrong_values_are_told_in_the_words_of_the_command_line(path: str, value: Any, text: str) -> None:
    with pytest.raises(InputError) as typed:
        load_spec("digits", overrides=[f"{path}={text}"])
    with pytest.raises(InputError) as filled:
        filled_spec("digits", nest(path, value))
    assert str(filled.value) == str(typed.value)


def test_a_sweep_is_the_one_that_the_command_line_makes() -> None:
    filled = filled_sweep(
        "digits",
        {"target": {"schedule": {"draws": 500}}},
        sizes=[50, 100],
        archs=[],
        seeds=[0, 1],
        over={"disentangler.width": [4, 8]},
    )
    typed = Asked(
        "digits", None, ["target.schedule.draws=500"], sizes="50,100", seeds="0,1", over=["disentangler.width=4,8"]
    ).sweep()
    assert points(filled) == points(typed)
    assert filled.base.variants.pruned is None
    assert not filled.base.substitution.control
    asked = filled_sweep("digits", {"variants": {"pruned": {"sparsity": 0.5}}}, sizes=[50])
    assert asked.base.variants.pruned is not None


def test_a_sweep_with_a_wrong_axis_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"^sizes\.1 = 0 will not do"):
        filled_sweep("digits", {}, sizes=[100, 0])
    with pytest.raises(InputError, match="twice"):
        points(filled_sweep("digits", {}, sizes=[100, 100]))
