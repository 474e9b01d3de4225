"""The provider: four algorithms, and the setting that names the command."""

from __future__ import annotations

from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS, ICON
from .command import SETTING


class Provider(QgsProcessingProvider):
    """somareg in the toolbox."""

    def id(self) -> str:
        return "somareg"

    def name(self) -> str:
        return "somareg"

    def longName(self) -> str:
        return "somareg: align SAR and optical rasters"

    def icon(self) -> QIcon:
        return QIcon(str(ICON))

    def load(self) -> bool:
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        words = "Command somareg, or the Python that it is installed in (empty: looked for)"
        ProcessingConfig.addSetting(Setting(self.name(), SETTING, words, "", valuetype=Setting.FILE))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self) -> None:
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def supportsNonFileBasedOutput(self) -> bool:
        return False

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif"]


def name_command(file: str) -> None:
    """Remember which command the user has chosen."""
    ProcessingConfig.setSettingValue(SETTING, file)


def named_command() -> Any:
    """What the user has chosen."""
    return ProcessingConfig.getSetting(SETTING)
