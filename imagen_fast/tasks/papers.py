"""The papers that models rest on, as whoever uses one cites them."""

PAPERS = {
    "vit": """@inproceedings{dosovitskiy2021image,
  title = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  author = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and others},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}""",
    "mae": """@inproceedings{he2022masked,
  title = {Masked Autoencoders Are Scalable Vision Learners},
  author = {He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and
            Girshick, Ross},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}""",
    "crossmae": """@article{fu2024rethinking,
  title = {Rethinking Patch Dependence for Masked Autoencoders},
  author = {Fu, Letian and Lian, Long and Wang, Renhao and Shi, Baifeng and others},
  journal = {arXiv:2401.14391},
  year = {2024}
}""",
    "aim": """@article{elnouby2024scalable,
  title = {Scalable Pre-training of Large Autoregressive Image Models},
  author = {El-Nouby, Alaaeldin and Klein, Michal and Zhai, Shuangfei and Bautista, Miguel Angel and others},
  journal = {arXiv:2401.08541},
  year = {2024}
}""",
    "igpt": """@inproceedings{chen2020generative,
  title = {Generative Pretraining From Pixels},
  author = {Chen, Mark and Radford, Alec and Child, Rewon and Wu, Jeffrey and others},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
}
