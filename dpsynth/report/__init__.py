"""Reports: one to publish, from paid or public facts alone, and one for the custodian."""

from dpsynth.report.internal import internal_html as internal_html
from dpsynth.report.odometer import odometer_svg as odometer_svg
from dpsynth.report.public import public_html as public_html
from dpsynth.report.statement import statement_html as statement_html
