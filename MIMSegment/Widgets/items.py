"""Plain values into Qt widgets and back, with what PythonQt and PySide6 both have.

Qt's properties are set by their setters and read by ``property("name")``: as attributes they are
values in PythonQt and methods in PySide6.
"""

import qt


def quietly(action, widget):
    """Do it without the widget's signals, which are for what the user does."""
    widget.blockSignals(True)
    try:
        action()
    finally:
        widget.blockSignals(False)


def show_button(widget, button):
    """Show a `panel.Button` in a button, box or bar."""
    widget.setEnabled(button.enabled)
    widget.setVisible(button.visible)
    widget.setToolTip(button.tooltip)
    if button.text:
        widget.setText(button.text)


def fill_box(box, choices, chosen):
    """Show ``choices`` (data, text) in a QComboBox, the one with data ``chosen`` on top."""

    def refill():
        box.clear()
        for data, text in choices:
            box.addItem(text, data)
        box.setCurrentIndex(max(0, box.findData(chosen)))

    quietly(refill, box)


def select_data(box, chosen):
    """Put the choice with data ``chosen`` on top of a QComboBox."""
    quietly(lambda: box.setCurrentIndex(max(0, box.findData(chosen))), box)


def chosen_data(box):
    """The data of the choice on top of a QComboBox, "" for none."""
    return box.itemData(box.property("currentIndex")) or ""


def fill_list(list_widget, lines, chosen, nothing):
    """Show `Line`s in a QListWidget, the one with key ``chosen`` selected; ``nothing`` is said when
    there are none."""

    def refill():
        list_widget.clear()
        if not lines:
            item = qt.QListWidgetItem(nothing)
            item.setFlags(qt.Qt.ItemIsEnabled)  # to be read, not to be chosen
            list_widget.addItem(item)
        for line in lines:
            item = qt.QListWidgetItem(line.text)
            item.setToolTip(line.tooltip)
            list_widget.addItem(item)
            if line.key == chosen:
                list_widget.setCurrentItem(item)

    quietly(refill, list_widget)


def current_row(widget):
    """The row of the current item of a QListWidget or QTableWidget, -1 for none."""
    item = widget.currentItem()
    return -1 if item is None else widget.row(item)


def chosen_rows(table):
    """The numbers of the selected rows of a QTableWidget, the current one first."""
    rows = range(table.property("rowCount"))
    chosen = [row for row in rows if table.item(row, 0).isSelected()]
    return sorted(chosen, key=lambda row: row != current_row(table))


def choose_rows(table, rows):
    """Select these rows of a QTableWidget, the first as the current one."""
    if not rows or chosen_rows(table) == rows:
        return
    table.selectRow(rows[0])
    for row in rows[1:]:
        for column in range(table.property("columnCount")):
            table.item(row, column).setSelected(True)


def fill_checks(list_widget, lines):
    """Show (value, name, whether it is checked) in a QListWidget."""

    def refill():
        list_widget.clear()
        for _value, name, checked in lines:
            item = qt.QListWidgetItem(name)
            item.setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)
            list_widget.addItem(item)

    quietly(refill, list_widget)


def checked_rows(list_widget):
    """The numbers of the checked items of a QListWidget."""
    rows = range(list_widget.property("count"))
    return [row for row in rows if list_widget.item(row).checkState() == qt.Qt.Checked]


def set_up_table(table, header):
    """The columns of a QTableWidget, as (caption, tooltip)."""
    table.setColumnCount(len(header))
    for column, (caption, tooltip) in enumerate(header):
        item = qt.QTableWidgetItem(caption)
        item.setToolTip(tooltip)
        table.setHorizontalHeaderItem(column, item)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(24)
    table.horizontalHeader().setSectionResizeMode(len(header) - 1, qt.QHeaderView.Stretch)


def fill_table(table, rows):
    """Show `panel.Row`s in a QTableWidget, the color beside the name."""

    def refill():
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row.cells):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(row.tooltip)
                if column == 0:
                    item.setIcon(color_icon(row.color))
                table.setItem(number, column, item)
        for column in range(table.property("columnCount") - 1):  # the last one takes the rest
            table.resizeColumnToContents(column)
        # A name that is longer is whole in the tooltip.
        table.setColumnWidth(0, min(table.columnWidth(0), 125))

    quietly(refill, table)


def color_icon(color):
    """A swatch that looks the same in a selected row."""
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(*color))
    icon = qt.QIcon(pixmap)
    icon.addPixmap(pixmap, qt.QIcon.Selected)
    return icon


def new_input_rows(frame, names, on_change):
    """(box, label under it) for each input by name, in place of those that were in ``frame``."""
    layout = frame.layout()
    layout.setColumnStretch(1, 1)
    for number in reversed(range(layout.count())):
        old = layout.itemAt(number).widget()
        layout.removeWidget(old)
        old.hide()
        old.deleteLater()
    rows = {}
    for name in names:
        box, reason = qt.QComboBox(), qt.QLabel()
        reason.setWordWrap(True)
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(12)
        reason.setTextFormat(qt.Qt.RichText)
        box.currentTextChanged.connect(lambda text, name=name: on_change(name))
        row = 2 * len(rows)
        layout.addWidget(qt.QLabel(name), row, 0)
        layout.addWidget(box, row, 1)
        layout.addWidget(reason, row + 1, 1)
        rows[name] = box, reason
    return rows
