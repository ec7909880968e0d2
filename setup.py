"""Package metadata from settings.ini, the one place where it stands."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
settings = config["DEFAULT"]


def lines(key):
    return [line.strip() for line in settings.get(key, "").splitlines() if line.strip()]


setup(
    version=settings["version"],
    description=settings["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    keywords=[word.strip() for word in settings["keywords"].split(",")],
    python_requires=">=" + settings["min_python"],
    install_requires=lines("requirements"),
    extras_require={name: lines(f"{name}_requirements") for name in ("dev", "gpu", "backends")},
    packages=find_packages(include=["medbook", "medbook.*"]),
    package_data={"medbook": ["static/*", "*/templates/*", "*/static/*", "*/cards/*", "lab/*.json",
                              "lab/kernels/*/*.json"]},
    entry_points={"console_scripts": lines("console_scripts"),
                  "nbdev": ["medbook=medbook._modidx:d"]},
)
