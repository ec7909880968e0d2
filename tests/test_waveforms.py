"""Contracts of medbook.images.waveforms: millivolts from DICOM and WFDB."""

import numpy as np
import pydicom

from medbook.images import (
    read_waveform,
)
from tests.dicom_files import CT, WHEEL, fault


def test_dicom_ecg_in_millivolt():
    ecg = read_waveform(WHEEL / "waveform_ecg.dcm")
    item = pydicom.dcmread(WHEEL / "waveform_ecg.dcm").WaveformSequence[0]
    raw = np.frombuffer(item.WaveformData, "<i2").reshape(-1, 12)
    np.testing.assert_allclose(ecg.samples, raw * 1.25e-3, rtol=1e-6)
    assert (
        ecg.samples.dtype == np.float32
        and ecg.rate == 1000
        and ecg.leads == ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    )
    assert 0.5 < np.ptp(ecg.samples[:, 1]) < 5 and read_waveform(
        WHEEL / "waveform_ecg.dcm", group=1
    ).samples.shape == (1200, 12)
    assert "groups 0 to 1" in fault(read_waveform, WHEEL / "waveform_ecg.dcm", group=2)
    assert "no waveform" in fault(read_waveform, CT)


def test_units_of_a_dicom_waveform(tmp_path):
    dataset = pydicom.dcmread(WHEEL / "waveform_ecg.dcm")
    for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence:
        channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    dataset.save_as(tmp_path / "mv.dcm")
    np.testing.assert_allclose(
        read_waveform(tmp_path / "mv.dcm").samples,
        1000 * read_waveform(WHEEL / "waveform_ecg.dcm").samples,
        rtol=1e-5,
    )
    dataset.WaveformSequence[0].ChannelDefinitionSequence[3].ChannelSensitivityUnitsSequence[
        0
    ].CodeValue = "mm[Hg]"
    dataset.save_as(tmp_path / "pressure.dcm")
    assert "no voltage" in fault(read_waveform, tmp_path / "pressure.dcm")
    dataset.WaveformSequence[0].NumberOfWaveformSamples = 2_000_000_000
    dataset.save_as(tmp_path / "huge.dcm")
    assert "do not fit" in fault(read_waveform, tmp_path / "huge.dcm")


def test_wfdb_records(shared):
    import wfdb

    header = sorted((shared / "ecg/cinc2021").glob("*.hea"))[0]
    theirs = wfdb.rdrecord(str(header.with_suffix("")))
    for path in (header, header.with_suffix(""), header.with_suffix(".mat")):
        ecg = read_waveform(path)
        np.testing.assert_allclose(ecg.samples, theirs.p_signal, rtol=1e-6, atol=1e-9)
        assert (
            ecg.leads == theirs.sig_name
            and ecg.rate == theirs.fs
            and ecg.comments == theirs.comments
        )
    every = [read_waveform(path) for path in sorted((shared / "ecg").rglob("*.hea"))]
    assert len(every) > 40 and {len(ecg.leads) for ecg in every} >= {2, 12}
    assert all(ecg.samples.dtype == np.float32 for ecg in every)


def test_wfdb_units_and_faults(tmp_path):
    import wfdb

    signal = np.random.default_rng(0).normal(size=(50, 1))
    wfdb.wrsamp(
        "rec",
        fs=100,
        units=["uV"],
        sig_name=["II"],
        p_signal=signal * 1000,
        fmt=["16"],
        write_dir=str(tmp_path),
    )
    np.testing.assert_allclose(read_waveform(tmp_path / "rec").samples, signal, atol=1e-3)
    header = (tmp_path / "rec.hea").read_text()
    (tmp_path / "rec.hea").write_text(header.replace("uV", "mmHg"))
    assert "no voltage" in fault(read_waveform, tmp_path / "rec.hea")
    (tmp_path / "rec.hea").write_text("nonsense\n")
    fault(read_waveform, tmp_path / "rec.hea")
    (tmp_path / "rec.hea").write_text(header)
    (tmp_path / "rec.dat").unlink()
    assert "missing" in fault(read_waveform, tmp_path / "rec.hea")
    assert "missing" in fault(read_waveform, tmp_path / "other.hea")
    assert "no such file" in fault(read_waveform, tmp_path / "nothing")
