import numpy as np
import torch

from compress.select.criteria.norms import norms


def test_norms_of_both_sides():
    first, bias, behind, aside = torch.randn(3, 4), torch.randn(3, 1), torch.randn(3, 5), torch.randn(3, 2)
    incoming, outgoing = np.hstack([first, bias]), np.hstack([behind, aside])
    expected = np.sqrt((incoming**2).sum(1) * (outgoing**2).sum(1))
    found = norms([first, bias], [behind, aside])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(norms([3 * first, 3 * bias], [behind / 3, aside / 3]), found)
