"""Which widget of MIMSegment.ui calls what of `MIMSegmentWidget`.

PythonQt gives a slot as many arguments as it takes positionally, and all of them if it takes
``*ignored``; so what a lambda must remember stands behind that, or is bound by a function.
"""

import qt

_VERDICTS = ("accept", "edit", "reject", "reopen", "undo")


def connect(panel):
    """Connect everything that the user can click, choose, type or press."""
    for name, action in _clicks(panel).items():
        _on_click(panel, getattr(panel.ui, name), action)
    for key, name in panel.panel.SHORTCUTS.items():
        _on_key(panel.ui.reviewTable, key, getattr(panel.ui, name))
    _connect_choices(panel, panel.ui)


def _clicks(panel):
    """What each button does, by its name."""
    clicks = {
        "acknowledgeButton": lambda: panel.workflow.acknowledge(),
        "installButton": panel.on_install,
        "removeButton": panel.on_remove,
        "importButton": panel.on_import,
        "sampleButton": panel.on_sample,
        "openButton": panel.on_open,
        "runButton": panel.on_run,
        "cancelButton": lambda: panel.workflow.cancel(),
        "reviewAgainButton": panel.on_review_again,
        "undoResultButton": lambda: panel.workflow.undo_result(),
        "previousPlaceButton": lambda: panel.on_place(panel.workflow.review.previous_place()),
        "nextPlaceButton": lambda: panel.on_place(panel.workflow.review.next_place()),
        "acceptRestButton": lambda: panel.workflow.review.accept_rest(),
        "rejectRestButton": lambda: panel.workflow.review.reject_rest(),
        "finishEditButton": lambda: panel.workflow.review.finish_edit(),
        "copyTableButton": panel.on_copy_table,
    }
    for verdict in _VERDICTS:
        clicks[f"{verdict}Button"] = lambda verdict=verdict: panel.on_verdict(verdict)
    for name, kind in panel.panel.EXPORTS.items():
        clicks[name] = lambda kind=kind: panel.on_export(kind)
    return clicks


def _on_click(panel, button, action):
    button.clicked.connect(lambda *ignored: panel.do(action))


def _on_key(table, key, button):
    """A key that works while the table has the focus, and nowhere else."""
    shortcut = qt.QShortcut(qt.QKeySequence(key), table)
    shortcut.setContext(qt.Qt.WidgetShortcut)
    shortcut.activated.connect(lambda: button.click())


def _build_surfaces(panel):
    if panel.workflow.result is not None:
        from MIMSegment.Logic.scene_navigation import show_sides_everywhere
        from MIMSegment.Logic.scene_surfaces import ensure_surfaces

        show_sides_everywhere(panel.workflow.result.store.node.GetScene())
        ensure_surfaces(panel.workflow.result.store.node)


def _connect_choices(panel, ui):
    chosen = panel.items.chosen_data
    ui.show3DButton.pressed.connect(lambda: panel.do(_build_surfaces, panel))
    ui.copyReportButton.clicked.connect(lambda *ignored: panel.on_copy_report())
    ui.searchBox.textChanged.connect(lambda text: panel.on_search(text=text))
    ui.modalityFilter.currentTextChanged.connect(
        lambda text: panel.on_search(modality=chosen(ui.modalityFilter))
    )
    ui.regionFilter.currentTextChanged.connect(
        lambda text: panel.on_search(region=chosen(ui.regionFilter))
    )
    ui.cardList.itemSelectionChanged.connect(lambda: panel.do(panel.on_card))
    ui.deviceBox.currentTextChanged.connect(lambda text: panel.do(panel.on_device))
    ui.targetBox.currentNodeIDChanged.connect(lambda node: panel.do(panel.on_target, node))
    ui.structureList.itemChanged.connect(lambda item: panel.do(panel.on_structures))
    ui.reviewTable.itemSelectionChanged.connect(lambda: panel.do(panel.on_select))
    ui.commentEdit.editingFinished.connect(lambda: panel.do(panel.on_comment))
