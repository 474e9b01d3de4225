"""The plugin: it adds the provider, and asks for the command where it is not found."""

from __future__ import annotations

from typing import Any

from qgis.core import Qgis, QgsApplication
from qgis.PyQt.QtWidgets import QAction, QFileDialog, QPushButton

from . import command
from .provider import Provider, name_command, named_command

MENU = "somareg"


class Plugin:
    """What QGIS loads.

    Args:
        iface: of the window; None where there is none.
    """

    def __init__(self, iface: Any) -> None:
        self.iface = iface
        self.provider: Any = None
        self.action: Any = None

    def initProcessing(self) -> None:
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        self.initProcessing()
        self.action = QAction("Where is the command?", self.iface.mainWindow())
        self.action.triggered.connect(self.choose)
        self.iface.addPluginToRasterMenu(MENU, self.action)
        try:
            command.find(str(named_command() or ""))
        except command.NotFoundError as error:
            self.ask(str(error))

    def unload(self) -> None:
        if self.action is not None:
            self.iface.removePluginRasterMenu(MENU, self.action)
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)

    def ask(self, words: str) -> None:
        """Tell that the command is missing, with a button to name it."""
        bar = self.iface.messageBar()
        told = bar.createMessage("somareg", words)
        button = QPushButton("Choose ...")
        button.clicked.connect(self.choose)
        told.layout().addWidget(button)
        bar.pushWidget(told, Qgis.Warning)

    def choose(self) -> None:
        """Let the user name the command."""
        file, _ = QFileDialog.getOpenFileName(self.iface.mainWindow(), "The command somareg, or its Python")
        if not file:
            return
        try:
            command.find(file)
        except command.NotFoundError as error:
            self.iface.messageBar().pushMessage("somareg", str(error), level=Qgis.Warning)
            return
        name_command(file)
        self.iface.messageBar().pushMessage("somareg", f"{file} is used from now on", level=Qgis.Success)
