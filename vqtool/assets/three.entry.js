export {
  BufferAttribute, BufferGeometry, Color, CylinderGeometry, DirectionalLight, Fog, HemisphereLight, InstancedMesh,
  Line, LineBasicMaterial, LineSegments, Matrix4, MeshLambertMaterial, PerspectiveCamera, Quaternion, Scene,
  SphereGeometry, Vector3, WebGLRenderer,
} from "three";
