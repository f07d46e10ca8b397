"""Reports: one to publish, from paid or public facts alone, and one for the custodian."""

from dpsynth.report.internal import internal_html as internal_html
from dpsynth.report.public import public_html as public_html
