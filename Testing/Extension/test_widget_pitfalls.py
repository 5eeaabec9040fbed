"""What runs with PySide6 and not with PythonQt, or not with Qt 5, found by reading the source.

In PythonQt a Qt property is an attribute (``label.text``) and calling it fails; setting an
attribute of a Qt object sets the property there and nothing with PySide6; and of ctk and qMRML
classes only slots, signals and properties exist. So the panel uses setters, slots and
``property("name")``.
"""

import ast
from xml.etree import ElementTree

import pytest

from module_files import MODULE

MAIN = MODULE / "MIMSegment.py"
FILES = [MAIN, *sorted((MODULE / "Widgets").glob("*.py"))]
UI = MODULE / "Resources" / "UI" / "MIMSegment.ui"
TREES = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NODES = [node for tree in TREES.values() for node in ast.walk(tree)]
WHERE = {node: name for name, tree in TREES.items() for node in ast.walk(tree)}
# Of Qt 5, gone in Qt 6; with an overload in Qt 5 that PythonQt may take; a crash in PythonQt.
GONE = {"QTextCodec", "QDesktopWidget", "QRegExp", "QRegExpValidator", "QSound", "QDirModel"}
OVERLOADED = {"currentIndexChanged", "highlighted", "buttonClicked", "valueChanged"}
CRASHES = {"Signal", "Slot", "pyqtSignal", "pyqtSlot"}
UNREACHABLE = {"selectedIndexes", "findChildren"}  # protected; does not work in PythonQt


def dotted(node) -> str:
    """ "self.ui.runButton" for such an expression, "" for any other."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def at(node) -> str:
    return f"{WHERE[node]}, line {node.lineno}"


def calls():
    return [node for node in NODES if isinstance(node, ast.Call)]


def ui_classes() -> dict[str, str]:
    """The class of each widget of the .ui file by its name."""
    return {w.get("name"): w.get("class") for w in ElementTree.parse(UI).getroot().iter("widget")}


def used_of_ui():
    """(widget's name, what is used of it, line) for each ``self.ui.name.attribute``."""
    for node in NODES:
        parts = dotted(node).removeprefix("self.").split(".")
        if parts[0] == "ui" and len(parts) > 1:
            yield parts[1], parts[2] if len(parts) > 2 else "", at(node)


@pytest.fixture(scope="module")
def qt_properties():
    """The names of all properties of Qt's widgets."""
    widgets = pytest.importorskip("PySide6.QtWidgets", reason="needs PySide6 (the extra tests)")
    classes = [getattr(widgets, name) for name in dir(widgets) if name.startswith("Q")]
    classes = [c for c in classes if hasattr(c, "staticMetaObject")]
    metas = [c.staticMetaObject for c in classes]
    names = {meta.property(i).name() for meta in metas for i in range(meta.propertyCount())}
    assert {"text", "currentRow", "rowCount", "checked", "visible"} <= names
    return names - {"layout"}  # of a widget it is a method


def test_signals_are_connected_by_attribute():
    for call in calls():
        if dotted(call.func).endswith(".connect") and isinstance(call.args[0], ast.Constant):
            assert dotted(call.func) == "slicer.app.connect", at(call)
            assert call.args[0].value == "startupCompleted()", at(call)


def test_attributes_are_set_on_our_own_objects_only():
    """``widget.text = "a"`` would create a Python attribute or set a property, who knows."""
    for node in NODES:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        for target in targets:
            if isinstance(target, ast.Attribute):
                owner = dotted(target.value)
                assert owner in ("self", "self.parent"), f"{at(node)}: {owner}"


def test_every_widget_that_is_used_is_in_the_ui_file():
    known = ui_classes()
    used = list(used_of_ui())
    assert len(used) > 20
    for name, _, where in used:
        assert name in known, f"{where}: {name}"


def test_every_button_of_the_panel_is_in_the_ui_file():
    from MIMSegment.Logic.panel import EXPORTS, SHORTCUTS, panel_of
    from MIMSegment.Logic.workflow_actions import actions_of
    from MIMSegment.Logic.workflow_state import Step, WorkflowSettings, WorkflowState

    state = WorkflowState(Step.CHOOSE)
    state = WorkflowState(Step.CHOOSE, actions=actions_of(state, "", None, None))
    panel = panel_of(state, WorkflowSettings())
    names = {*EXPORTS, *SHORTCUTS.values(), *panel.buttons, *panel.labels, *panel.collapsed}
    assert names <= set(ui_classes())


def test_properties_are_neither_called_nor_read_as_attributes(qt_properties):
    called = {call.func: call for call in calls()}
    for node in NODES:
        if not isinstance(node, ast.Attribute) or node.attr not in qt_properties:
            continue
        if dotted(node).endswith("layout.count"):  # of a layout it is a method
            continue
        bare = node in called and not called[node].args + called[node].keywords
        assert not bare, f"{at(node)}: {node.attr}()"
        if dotted(node).removeprefix("self.").startswith("ui.") and node not in called:
            assert dotted(node).count(".") < 3, f"{at(node)}: {node.attr} is a property"


def test_of_ctk_and_qmrml_only_what_python_can_reach_is_used():
    pytest.importorskip("PySide6.QtWidgets", reason="needs PySide6 (the extra tests)")
    pytest.importorskip("slicer", reason="needs slicer-core (the extra web)")
    import slicer_standins

    classes = ui_classes()
    for name, attribute, where in used_of_ui():
        standin = getattr(slicer_standins, classes[name], None)
        if attribute and standin is not None:
            assert hasattr(standin, attribute), f"{where}: {classes[name]}.{attribute}"


def test_nothing_of_qt_is_used_that_one_of_its_versions_lacks():
    for node in NODES:
        if isinstance(node, ast.Attribute):
            assert node.attr not in GONE | OVERLOADED | CRASHES | UNREACHABLE, at(node)


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((MODULE / "Logic").glob("panel*.py"))], ids=lambda p: p.name
)
def test_what_is_translated_is_written_out(path):
    """Slicer collects the texts by reading the source."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and dotted(node.func) == "_":
            (text,) = node.args
            assert isinstance(text, ast.Constant), f"{path.name}, line {node.lineno}"


def test_the_ui_file_names_its_connections_and_custom_widgets():
    root = ElementTree.parse(UI).getroot()
    custom = {c.findtext("class") for c in root.iter("customwidget")}
    assert {c for c in ui_classes().values() if not c.startswith("Q")} == custom
    names = [w.get("name") for w in root.iter("widget")]
    assert len(set(names)) == len(names)


def test_only_words_are_offered_to_translators():
    """Properties that hold names for the program must be marked so."""
    for node in ElementTree.parse(UI).getroot().iter("string"):
        if (node.text or "").startswith(("vtk", "qMRML", "ctk")):
            assert node.get("notr") == "true", node.text


# Of Qt's and Slicer's functions those that show a text, and which of their arguments it is.
SHOWS = {
    "setText": 0, "setToolTip": 0, "setPlaceholderText": 0, "setWindowTitle": 0, "setTitle": 0,
    "setLabelText": 0, "QLabel": 0, "QPushButton": 0, "QListWidgetItem": 0, "QTableWidgetItem": 0,
    "addItem": 0, "confirmOkCancelDisplay": 0, "errorDisplay": 0, "infoDisplay": 0,
    "getOpenFileName": 1, "getSaveFileName": 1, "getExistingDirectory": 1,
    "DeviceError": 0, "InputError": 0,
}  # fmt: skip


def untranslated(node) -> list[str]:
    """The pieces of text in an expression that no ``_()`` is around."""
    if isinstance(node, ast.Call) and dotted(node.func) == "_":
        return []
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if any(map(str.isalpha, node.value)) else []
    return [text for child in ast.iter_child_nodes(node) for text in untranslated(child)]


def test_no_text_is_shown_untranslated():
    (self_test,) = [n for n in NODES if getattr(n, "name", "") == "MIMSegmentTest"]
    for call in set(calls()) - set(ast.walk(self_test)):
        place = SHOWS.get(dotted(call.func).split(".")[-1], len(call.args))
        for argument in call.args[place : place + 1]:
            assert not untranslated(argument), f"{at(call)}: {untranslated(argument)}"


@pytest.mark.parametrize(
    ("code", "found"), [('f(_("Yes"))', []), ('f("No")', ["No"]), ('f(f"{x} No")', [" No"])]
)
def test_an_untranslated_text_is_found(code, found):
    assert untranslated(ast.parse(code).body[0].value.args[0]) == found


def test_every_text_of_the_ui_file_can_be_translated():
    """Slicer's tools take what is no name of the program and not marked."""
    for node in ElementTree.parse(UI).getroot().iter("property"):
        if node.get("name") in ("text", "toolTip", "placeholderText", "noneDisplay", "title"):
            assert node.find("string").get("notr") is None, node.find("string").text


def test_the_widget_is_thin():
    (widget,) = [n for n in TREES[MAIN.name].body if getattr(n, "name", "") == "MIMSegmentWidget"]
    assert widget.end_lineno - widget.lineno < 250


def test_only_the_panel_knows_qt():
    for path in [*MODULE.rglob("*.py"), *(MODULE.parent / "web").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        tops = {name.split(".")[0] for name in names}
        of_panel = {"qt", "ctk"} & tops or any(n.startswith("MIMSegment.Widgets") for n in names)
        assert path in FILES or not of_panel, path
