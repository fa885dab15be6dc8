"""The kinds of steps, one module each, and the one place that knows them all."""

from typing import Any

from keyfit.engine.steps import (
    archive,
    ccid_list_entry,
    distribution_package,
    firefox_policy,
    kernel_module_blacklist,
    nss_module,
    p11_kit_module,
    package_file,
    service,
    udev_rule,
)
from keyfit.engine.steps.base import Detected, Fetch, State, StepKind
from keyfit.model.catalog import Payload
from keyfit.model.plan import (
    Archive,
    CcidListLine,
    Change,
    DistributionPackages,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    NssModule,
    P11KitModule,
    PackageFile,
    ServiceState,
    UdevRuleFile,
)
from keyfit.ports import Host

__all__ = ["Detected", "Fetch", "State", "apply", "detect", "expect", "payload_of", "undo"]


KINDS: dict[type[Change], StepKind[Any]] = {
    DistributionPackages: distribution_package.Kind(),
    PackageFile: package_file.Kind(),
    Archive: archive.Kind(),
    UdevRuleFile: udev_rule.Kind(),
    CcidListLine: ccid_list_entry.Kind(),
    P11KitModule: p11_kit_module.Kind(),
    FirefoxPolicy: firefox_policy.Kind(),
    NssModule: nss_module.Kind(),
    KernelModuleBlacklistFile: kernel_module_blacklist.Kind(),
    ServiceState: service.Kind(),
}
"""Every member of `Change` has its kind here; a test holds the two against each other."""


def kind_of(change: Change) -> StepKind[Any]:
    """The kind for a change."""
    kind: StepKind[Any] = KINDS[type(change)]
    return kind


def detect(change: Change, host: Host) -> Detected:
    """Look whether the change is there already."""
    return kind_of(change).detect(change, host)


def expect(change: Change, host: Host, before: State, fetch: Fetch) -> State:
    """What the machine will be like after the change, as far as that is known before."""
    return kind_of(change).expect(change, host, before, fetch)


def apply(change: Change, host: Host, before: State, fetch: Fetch) -> State:
    """Make the change."""
    return kind_of(change).apply(change, host, before, fetch)


def undo(change: Change, host: Host, before: State, after: State) -> str:
    """Take the change back; says what was left alone, or nothing."""
    return kind_of(change).undo(change, host, before, after)


def payload_of(change: Change) -> Payload | None:
    """The file of ours that a change needs, if any."""
    return change.payload if isinstance(change, PackageFile | Archive) else None
