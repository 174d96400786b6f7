"""Prints the JSON Schema of a class, and the validators and constraints that the schema lacks, as one line of JSON.

Arguments: module or file, class. What the import prints goes to standard error.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
import traceback

source, name = sys.argv[1], sys.argv[2]
out = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
here = os.getcwd()
sys.path[:0] = [os.path.dirname(os.path.abspath(source)) if source.endswith(".py") else here, here]


def finish(**result):
    out.write(json.dumps(result) + "\n")
    out.flush()
    os._exit(0)


def fail(error, **more):
    """Where the import failed: the last place outside of Python and its libraries."""
    own = ("<", sys.prefix + os.sep, sys.base_prefix + os.sep)
    place = [frame for frame in traceback.extract_tb(error.__traceback__)
             if not frame.filename.startswith(own) and "site-packages" not in frame.filename]
    file, line = (place[-1].filename, place[-1].lineno) if place else (None, None)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    text = str(error).splitlines()[0] if str(error) else ""
    cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
    finish(error=cause, file=file, line=line, **more)


def load():
    if not source.endswith(".py"):
        return importlib.import_module(source)
    stem = os.path.splitext(os.path.basename(source))[0]
    spec = importlib.util.spec_from_file_location(stem, source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def is_model(value):
    return isinstance(value, type) and hasattr(value, "model_json_schema") and value.__module__ != "pydantic.main"


BOUNDS = ("gt", "ge", "lt", "le")
# By type: what Pydantic checks and its JSON Schema leaves out, or has for numbers but not for their texts.
LEFT_OUT = {
    "decimal": (*BOUNDS, "multiple_of", "max_digits", "decimal_places"),
    "date": (*BOUNDS, "now_op"),
    "datetime": (*BOUNDS, "now_op", "tz_constraint"),
    "time": (*BOUNDS, "tz_constraint"),
    "timedelta": BOUNDS,
    "uuid": ("version",),
    "url": ("allowed_schemes",),
    "multi-host-url": ("allowed_schemes",),
}


def validators(core):
    found, seen = [], set()

    def model_of(node):
        while isinstance(node, dict):
            if node.get("type") in ("model", "dataclass", "typed-dict"):
                return getattr(node.get("cls"), "__name__", node.get("cls_name"))
            node = node.get("schema")
        return None

    def walk(node, owner, field):
        if isinstance(node, (list, tuple)):
            for item in node:
                walk(item, owner, field)
        if not isinstance(node, dict) or id(node) in seen:
            return
        seen.add(id(node))
        kind = node.get("type")
        config = node.get("config") if isinstance(node.get("config"), dict) else {}
        lost = [(key, node.get(key)) for key in LEFT_OUT.get(kind, ())] if isinstance(kind, str) else []
        lost += [(key, config.get(key)) for key in ("str_min_length", "str_max_length", "str_pattern")]
        found.extend({"validator": f"{key} = {value}", "kind": kind, "model": owner, "field": field}
                     for key, value in lost if value is not None)
        if isinstance(kind, str) and kind.startswith("function-"):
            function = (node.get("function") or {}).get("function")
            while isinstance(function, functools.partial):
                function = function.func
            function = getattr(function, "__func__", function)
            # Predicates of annotated_types are checked by a function of Pydantic's own.
            is_own = (getattr(function, "__module__", None) or "").startswith(("pydantic.", "pydantic_core"))
            if not is_own or getattr(function, "__name__", "") == "val_func":
                model = model_of(node.get("schema"))
                found.append({
                    "validator": getattr(function, "__name__", type(function).__name__),
                    "kind": kind[len("function-"):],
                    "model": model if model and not field else owner,
                    "field": field,
                })
        if kind in ("model", "dataclass", "typed-dict"):
            owner, field = getattr(node.get("cls"), "__name__", node.get("cls_name") or owner), None
        for key, value in node.items():
            if key in ("serialization", "metadata", "cls", "function"):
                continue
            if key == "fields" and isinstance(value, dict):
                for inner, schema in value.items():
                    walk(schema, owner, f"{field}.{inner}" if field else inner)
            elif key == "fields" and isinstance(value, list):
                for schema in value:
                    walk(schema, owner, schema.get("name", field) if isinstance(schema, dict) else field)
            else:
                walk(value, owner, field)

    walk(core, name, None)
    return [one for place, one in enumerate(found) if one not in found[:place]]


try:
    import pydantic
except ImportError as error:
    fail(error, missing="pydantic")
if not hasattr(pydantic, "TypeAdapter"):
    finish(error=f"pydantic {pydantic.VERSION} has no JSON Schema of 2020-12", missing="pydantic>=2")
try:
    module = load()
except BaseException as error:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    fail(error, missing=missing, is_source=missing == source or isinstance(error, FileNotFoundError))
found = module
for part in name.split("."):
    if not hasattr(found, part):
        finish(error=f"no class {name}", file=getattr(module, "__file__", None),
               classes=sorted(key for key, value in vars(module).items() if is_model(value)))
    found = getattr(found, part)
try:
    adapter = pydantic.TypeAdapter(found)
    schema = found.model_json_schema() if is_model(found) else adapter.json_schema()
    finish(schema=schema, validators=validators(adapter.core_schema), file=getattr(module, "__file__", None))
except BaseException as error:
    fail(error)
